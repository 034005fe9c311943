"""From documents and questions to training rows: sources, retrieval, negatives, contexts, labels."""
