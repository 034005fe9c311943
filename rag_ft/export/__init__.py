"""From a trained adapter to something others can use and judge: the model card. Trains and measures nothing."""
