/**
 * The part of the page's address that says what is searched for: `#like=17,23&unlike=5&folder=2023/summer`.
 * Such an address can be kept and shared.
 *
 * Each change of it is a step in the browser's history, so that Back takes it back. The state of each entry says how many
 * steps of this page lead to it.
 */

import { closeAll } from "./dialogs.js";

const IDS = ["like", "unlike"];
const ID = /^[0-9]{1,18}$/;
// The others, which may be repeated where a search takes several of them.
const DAY = /^[0-9]{4}-[0-9]{2}-[0-9]{2}$/;
const OTHERS = {
  text: { is: /\S/, most: 1 },
  folder: { is: /\S/, most: 8 },
  after: { is: DAY, most: 1 },
  before: { is: DAY, most: 1 },
};

/**
 * What the address names.
 *
 * @typedef {Record<"like" | "unlike" | "text" | "folder" | "after" | "before", string[]>} Wanted parameters of
 *   a search, each with its values: ids of photos, a word, folders, days as YYYY-MM-DD
 * @returns {Wanted}
 */
export function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const ids = (name) => (given.get(name) ?? "").split(",").filter((id) => ID.test(id));
  const values = (name) => given.getAll(name).filter((value) => OTHERS[name].is.test(value));
  return Object.fromEntries([
    ...IDS.map((name) => [name, [...new Set(ids(name))]]),
    ...Object.entries(OTHERS).map(([name, { most }]) => [name, [...new Set(values(name))].slice(0, most)]),
  ]);
}

/** Go on to an address that names this. Dialogs are closed. @param {Wanted} wanted */
export function write(wanted) {
  const ids = IDS.filter((name) => wanted[name].length).map((name) => `${name}=${wanted[name].join()}`);
  const others = Object.keys(OTHERS).flatMap((name) => wanted[name].map((value) => `${name}=${escaped(value)}`));
  const named = [...ids, ...others];
  const hash = named.length ? `#${named.join("&")}` : "";
  closeAll(() => {
    history.pushState({ dialogs: 0, step: steps() + 1 }, "", `${location.pathname}${location.search}${hash}`);
  });
}

export function steps() {
  return history.state?.step ?? 0;
}

/** Escaped as far as it must be: people read addresses, and slashes and commas do no harm here. */
function escaped(value) {
  return encodeURIComponent(value).replaceAll("%2F", "/").replaceAll("%2C", ",");
}
