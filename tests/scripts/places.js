// Where kinds stand after others, given as [rank, photos...] each, best photo first: their ranks, in their places.
async (before, after, stay) => {
  const { arrange } = await import("/page/results/places.js");
  const photo = (id) => ({ id, paths: [`${id}.jpg`] });
  const kind = ([rank, best, ...more]) => ({ rank, best: photo(best), more: more.map(photo) });
  return arrange(after.map(kind), before.map(kind), stay).map((one) => [one.kind.rank, one.from]);
}
