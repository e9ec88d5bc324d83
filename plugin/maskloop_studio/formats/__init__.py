"""Label Studio's ways to say where an object is, behind `label_config`, `regions`, `brush` and `polygon`."""
