"""Chat models that read text: any ``AutoModelForCausalLM`` of transformers, on the same engine, adapters and sampling."""
