async (photo, cells) => {
  const { bestMatches } = await import("/page/why/views.js");
  return [...bestMatches(photo, new Set(cells))];
}
