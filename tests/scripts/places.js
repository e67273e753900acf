// Where groups stand after others, given as [rank, photos...] each, best photo first: their ranks, in their places.
async (before, after, stay) => {
  const { arrange } = await import("/page/results/results.js");
  const photo = (id) => ({ id, paths: [`${id}.jpg`] });
  const group = ([rank, best, ...more]) => ({ rank, best: photo(best), more: more.map(photo) });
  return arrange(after.map(group), before.map(group), stay).map((one) => [one.group.rank, one.from]);
}
