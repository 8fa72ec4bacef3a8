"""Where information flows inside large vision-language models: the method of arXiv 2406.06579."""
