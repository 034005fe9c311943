"""Weight references become models and tokenizers; adapters are attached and checked. Trains and generates nothing."""
