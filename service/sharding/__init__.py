"""A gallery in several shards on several machines: what each shard answers, and the one search over all of them."""
