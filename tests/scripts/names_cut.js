// The names of things that the line of the query begins to show, and not all of.
() => {
  const box = document.getElementById("parts-things");
  const { right, bottom } = box.getBoundingClientRect();
  return [...box.textContent.matchAll(/[^ ,][^,]*/g)].map(({ 0: name, index }) => {
    const range = document.createRange();
    range.setStart(box.firstChild, index);
    range.setEnd(box.firstChild, index + name.length);
    return [...range.getClientRects()].some((one) => one.top < bottom && one.right > right + 1) ? name : "";
  }).filter(Boolean);
}
