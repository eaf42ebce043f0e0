"""Drawing and scoring pictures: slots of prompts and seeds, several ranks, the cache of the base's pictures."""
