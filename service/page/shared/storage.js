/**
 * What the browser keeps for this page: `forTab` for as long as the tab is open, `forSite` for good. A browser that blocks site
 * data, or whose storage is full, throws; what it does not take is not kept.
 */

function storage(name) {
  const touch = (use) => {
    try {
      return use(window[name]);
    } catch {
      return null;
    }
  };
  const set = (key, text) => touch((kept) => kept.setItem(key, text) ?? true);
  const remove = (key) => touch((kept) => kept.removeItem(key));
  return {
    get: (key) => touch((kept) => kept.getItem(key)),
    set,
    keys: () => touch(Object.keys) ?? [],
    remove,
    mark: (key, yes) => (yes ? set(key, "1") : remove(key)),
  };
}

export const forTab = storage("sessionStorage");
export const forSite = storage("localStorage");
