/**
 * What the browser keeps for this page: `forTab` for as long as the tab is open, `forSite` for good.
 *
 * A browser that blocks site data throws at the first touch of its storage, and one whose storage is full throws when
 * something is written. What it does not take is not kept.
 */

/** @param {"sessionStorage" | "localStorage"} name of the browser's storage */
function storage(name) {
  const touch = (use) => {
    try {
      return use(window[name]);
    } catch {
      return null;
    }
  };
  const set = (key, text) => touch((kept) => kept.setItem(key, text));
  const remove = (key) => touch((kept) => kept.removeItem(key));
  return {
    /** The text under this key; null where there is none. */
    get: (key) => touch((kept) => kept.getItem(key)),
    set,
    remove,
    mark: (key, yes) => (yes ? set(key, "1") : remove(key)),
  };
}

export const forTab = storage("sessionStorage");
export const forSite = storage("localStorage");
