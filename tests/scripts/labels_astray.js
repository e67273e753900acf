// The labels of things that leave the paper, lie over another label, or over ink; `apart`: or over a thing.
(apart) => {
  const box = (one) => one.getBoundingClientRect();
  const canvas = document.getElementById("paper");
  const paper = box(canvas);
  const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height }).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const labels = [...document.querySelectorAll("#things p")];
  const others = [...labels, ...(apart ? document.querySelectorAll("#things li") : [])];
  const outside = (one) => one.left < paper.left - 1 || one.right > paper.right + 1 || one.top < paper.top - 1 || one.bottom > paper.bottom + 1;
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const inked = ({ left, top, width, height }) => {
    const scale = canvas.width / paper.width;
    const { data } = copy.getImageData((left - paper.left) * scale, (top - paper.top) * scale, width * scale, height * scale);
    return data.filter((value, i) => i % 4 === 0 && value < 100).length > data.length / 400;
  };
  const astray = (label) => outside(box(label)) || inked(box(label)) || others.some((other) => other !== label && meet(box(label), box(other)));
  return labels.filter(astray).map((label) => label.querySelector("input").value);
}
