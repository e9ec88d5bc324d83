"""The loop without Label Studio: the gain of image selection, measured on images whose truth is known."""
