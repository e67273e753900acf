/** Elements of the page, found and made; and what the browser keeps for it. */

/** @type {<Id extends string>(id: Id) => Id extends keyof Elements ? Elements[Id] : HTMLElement} */
export const byId = (id) => /** @type {any} */ (document.getElementById(id));

/** A new element with these properties and children; texts are children, too. @type {MakeElement} */
export function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

/** Replace what is in an element; the focus stays with what has the same `data-key`. @type {(box: HTMLElement, ...items: HTMLElement[]) => void} */
export function refill(box, ...items) {
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  box.replaceChildren(...items);
  if (focused !== undefined) { box.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true }); }
}

export function icon(/** @type {string} */ name) {
  const drawn = /** @type {Element} */ (byId("icon").content.firstElementChild.cloneNode(true));
  drawn.firstElementChild.setAttribute("href", `#i-${name}`);
  return drawn;
}

export function download(/** @type {Blob} */ blob, /** @type {string} */ name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  // Browsers read it some time after the click.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export const prose = (/** @type {string} */ text) => text.split("`").map((words, i) => element(i % 2 ? "code" : "span", { textContent: words }));

/** A path or the name of a file as nodes: its lines can end after a `/`, `_` or `.`. @type {(path: string) => (string | Node)[]} */
export const breakable = (path) => path.split(/(?<=[/_.])/).flatMap((piece) => [piece, element("wbr")]);

const radios = (/** @type {string} */ name) => [.../** @type {NodeListOf<HTMLInputElement>} */ (document.getElementsByName(name))];

/** Call `set` with the chosen value of these radio buttons, now and at every change. @type {Choice} */
export function choice(name, set) {
  for (const radio of radios(name)) {
    radio.addEventListener("change", () => set(/** @type {any} */ (radio.value)));
    // Browsers restore a choice when a page is loaded again.
    if (radio.checked) { set(/** @type {any} */ (radio.value)); }
  }
}

/** Choose one of the radio buttons of this name, as a click does. @type {(name: string, value: string | null) => void} */
export function choose(name, value) {
  radios(name).find((radio) => radio.value === value && !radio.checked)?.click();
}

/** Show one of these radio buttons, or none, as the chosen one, without the events of a click. @type {(name: string, value: string) => void} */
export function check(name, value) {
  for (const radio of radios(name)) { radio.checked = radio.value === value; }
}

/** Show this share in a progress element: undefined hides it, null shows that the share is unknown. @type {(bar: HTMLProgressElement, share?: number | null) => void} */
export function progress(bar, share) {
  bar.hidden = share === undefined;
  if (typeof share === "number") { bar.value = share; } else { bar.removeAttribute("value"); }
}

/** Close the menu on Escape, and as soon as something else is used. @type {(menu: HTMLDetailsElement) => void} */
export function closeOutside(menu) {
  document.addEventListener("pointerdown", ({ target }) => { menu.open &&= menu.contains(/** @type {Node} */ (target)); });
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && menu.open) {
      event.stopPropagation();
      menu.open = false;
      menu.firstElementChild.focus();
    }
  });
}

/** What the browser keeps, `forTab` while the tab is open, `forSite` for good; nothing if it blocks site data, or its storage is full.
 * @param {"sessionStorage" | "localStorage"} name */
function storage(name) {
  /** @type {<T>(use: (kept: Storage) => T) => T} */
  const touch = (use) => {
    try { return use(window[name]); } catch { return null; }
  };
  const set = (/** @type {string} */ key, /** @type {string | number} */ text) => touch((kept) => kept.setItem(key, `${text}`) ?? true);
  const remove = (/** @type {string} */ key) => touch((kept) => kept.removeItem(key));
  return {
    get: (/** @type {string} */ key) => touch((kept) => kept.getItem(key)),
    set,
    keys: () => touch(Object.keys) ?? [],
    remove,
    mark: (/** @type {string} */ key, /** @type {boolean} */ yes) => (yes ? set(key, "1") : remove(key)),
  };
}

export const forTab = storage("sessionStorage");
export const forSite = storage("localStorage");
