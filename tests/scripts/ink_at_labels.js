// Whether it is red, green or blue ink that lies nearest to each label of a thing, and how far away it is, in pixels.
() => {
  const canvas = document.getElementById("paper");
  const [{ left, top, width }, context] = [canvas.getBoundingClientRect(), canvas.getContext("2d")];
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const [scale, inked] = [width / canvas.width, (i) => Math.min(data[4 * i], data[4 * i + 1], data[4 * i + 2]) < 100];
  const ink = [...Array(canvas.width * canvas.height).keys()].filter(inked);
  const colour = (i) => {
    const channels = [...data.slice(4 * i, 4 * i + 3)];
    return ["red", "green", "blue"][channels.indexOf(Math.max(...channels))];
  };
  return [...document.querySelectorAll("#things p")].map((label) => {
    const box = label.getBoundingClientRect();
    const gap = (i) => {
      const [x, y] = [left + (i % canvas.width) * scale, top + Math.floor(i / canvas.width) * scale];
      return Math.hypot(Math.max(0, box.left - x, x - box.right), Math.max(0, box.top - y, y - box.bottom));
    };
    const [away, nearest] = ink.reduce((best, i) => (gap(i) < best[0] ? [gap(i), i] : best), [Infinity, 0]);
    return { nearest: colour(nearest), away };
  });
}
