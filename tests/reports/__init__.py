"""What users of recurrent, masked and irregular agents reported of SB3, each tried on this package."""
