"""The steps of prelabelling: score, arrange, push, clean up; `maskloop_studio.prelabel.run` takes them."""
