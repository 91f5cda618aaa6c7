"""Audio on the inside of VoxEngine: formats, conversion, files, voice activity, playback clocks."""
