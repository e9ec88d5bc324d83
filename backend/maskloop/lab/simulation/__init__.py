"""The loop without Label Studio: what choosing images is worth, measured on images whose truth is known."""
