//! Training: full training and LoRA SFT with the prompt mask, on a tensor library.
