// Drops a link of another page on this one, as a browser tells of it. Whether the page has taken it.
(address) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.setData("text/uri-list", address);
  dataTransfer.setData("text/plain", address);
  const tell = (kind) => document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
  return [tell("dragover"), tell("drop")].every((untouched) => !untouched);
}
