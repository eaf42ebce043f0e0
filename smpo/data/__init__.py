"""Preference pairs, and everything about them that is computed once.

    parquet     files, columns, and pictures read back on request
    index       what one file holds: content ids, labels, and what is wrong with a row
    votes       rows -> pairs: votes counted, ties settled
    pickapic    the three above as one `PairTable`
    scores      reward scores, in sqlite
    encoded     latents and prompt embeddings
    shards      their files
    order       position in the stream -> row of the table
    loader      the micro-batches of an update

Nothing is imported here: `smpo plan` looks at parquet metadata and must not load torch.
"""
