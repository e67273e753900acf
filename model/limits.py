"""Numbers that limit searches, apart from all else: settings and schemas read them without loading a network."""

#: The most variants of a sketch: one of each kind.
MAX_VARIANTS = 3
#: Clusters that are opened for each part of a query by default. There are about as many clusters as the square root of
#: the photos, so that these hold some 7,000 photos of 12,000, and 64,000 of a million. In made galleries of 20,000 and
#: 100,000 photos, 26 clusters held 0.98 of the exact first 96 photos of real sketches, and 57 held 0.995.
NPROBE = 64
#: The most pixels that are decoded of one picture: 384 MiB of RGB.
MAX_PIXELS = 1 << 27
