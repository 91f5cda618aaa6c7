"""The Speech service of Azure: continuous recognition and streaming synthesis, without a dialogue."""
