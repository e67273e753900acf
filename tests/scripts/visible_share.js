// Of an element's width, as far as the boxes around it let it be seen; null where it is not shown at all.
async (element) => {
  const { left, right, width } = element.getBoundingClientRect();
  let [from, to] = [0, innerWidth];
  for (let box = element.parentElement; box; box = box.parentElement) {
    const around = box.getBoundingClientRect();
    if (getComputedStyle(box).overflowX !== "visible") {
      [from, to] = [Math.max(from, around.left), Math.min(to, around.right)];
    }
  }
  return width ? Math.max(0, Math.min(right, to + 0.5) - Math.max(left, from - 0.5)) / width : null;
}
