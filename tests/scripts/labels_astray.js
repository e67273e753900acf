// The labels of things that leave the paper, or lie over a thing or another label.
() => {
  const box = (one) => one.getBoundingClientRect();
  const paper = box(document.getElementById("sheet"));
  const labels = [...document.querySelectorAll("#things p")];
  const others = [...labels, ...document.querySelectorAll("#things li")];
  const outside = (one) => one.left < paper.left - 1 || one.right > paper.right + 1 || one.top < paper.top - 1 || one.bottom > paper.bottom + 1;
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const astray = labels.filter((label) => outside(box(label)) || others.some((other) => other !== label && meet(box(label), box(other))));
  return astray.map((label) => label.querySelector("input").value);
}
