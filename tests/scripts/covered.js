// The controls in an element that something else covers, once each is scrolled to: their names, or what they are.
async (selector) => {
  const controls = [...document.querySelectorAll(selector)].flatMap((one) => [
    ...one.querySelectorAll("button, summary, select, input, canvas[tabindex]"),
  ]);
  const covered = [];
  for (const control of controls.filter((one) => !one.hidden && (one.labels?.[0] ?? one).checkVisibility())) {
    const shown = control.labels?.[0] ?? control;
    shown.scrollIntoView({ block: "nearest" });
    const { x, y, width, height } = shown.getBoundingClientRect();
    const there = document.elementFromPoint(x + width / 2, y + height / 2);
    if (!shown.contains(there) && !there?.contains(shown)) {
      covered.push(control.ariaLabel || control.id || control.textContent);
    }
  }
  return covered;
}
