/** Finding and making elements. */

/** The element of this id. */
export const part = (id) => document.getElementById(id);

/** A new element with these properties and children; texts are children, too. */
export function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

/** Hand a file to the person: the browser saves it under this name. */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  // The browser has taken hold of it once the click has been dealt with.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Text as nodes; what stands between backticks is code. */
export function prose(text) {
  return text.split("`").map((words, i) => element(i % 2 ? "code" : "span", { textContent: words }));
}

/** Let these radio buttons call `set` with the chosen value, now and at every change. */
export function choice(name, set) {
  for (const radio of document.getElementsByName(name)) {
    radio.addEventListener("change", () => set(radio.value));
    // Browsers restore a choice when a page is loaded again.
    if (radio.checked) {
      set(radio.value);
    }
  }
}

/** Choose one of the radio buttons of this name, as a click does. */
export function choose(name, value) {
  for (const radio of document.getElementsByName(name)) {
    if (radio.value === value && !radio.checked) {
      radio.click();
    }
  }
}
