// Runs before the page: it looks again at the server after half a second, not after three.
() => {
  const later = window.setTimeout;
  window.setTimeout = (call, pause, ...rest) => later(call, pause === 3000 ? 500 : pause, ...rest);
}
