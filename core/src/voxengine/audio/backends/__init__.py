"""Where sound comes from and goes to: devices, and what stands in for them under the same contract."""
