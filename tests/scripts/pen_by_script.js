// Draws a line across the paper by events of a pointer: with these buttons while it moves, or which cannot be captured.
(pointerType, buttons, captured) => {
  const paper = document.getElementById("paper");
  const { left, top, width, height } = paper.getBoundingClientRect();
  const capture = () => { if (!captured) { throw new DOMException("No active pointer", "NotFoundError"); } };
  Object.defineProperty(paper, "setPointerCapture", { value: capture, configurable: true });
  const send = (type, share, pressed) => paper.dispatchEvent(new PointerEvent(type, {
    pointerId: 7, pointerType, bubbles: true, cancelable: true, button: type === "pointermove" ? -1 : 0, buttons: pressed,
    clientX: left + share * width, clientY: top + height / 2, pressure: pressed ? 0.5 : 0,
  }));
  send("pointerdown", 0.2, 1);
  for (let i = 1; i <= 12; i++) { send("pointermove", 0.2 + i * 0.05, buttons); }
  send("pointerup", 0.8, 0);
}
