/**
 * The part of the page's address that names photos: `#like=17,23&unlike=5`. Such an address can be kept and shared.
 *
 * Each change of it is a step in the browser's history, so that Back takes it back. The state of each entry says how many
 * steps of this page lead to it.
 */

import { closeAll } from "./dialogs.js";

const NAMES = ["like", "unlike"];
const ID = /^[0-9]{1,18}$/;

/** The photos that the address names. @returns {{like: string[], unlike: string[]}} their ids */
export function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const ids = (name) => (given.get(name) ?? "").split(",").filter((id) => ID.test(id));
  return Object.fromEntries(NAMES.map((name) => [name, [...new Set(ids(name))]]));
}

/** Go on to an address that names these photos. Dialogs are closed. @param {{like: string[], unlike: string[]}} photos */
export function write(photos) {
  const named = NAMES.filter((name) => photos[name].length).map((name) => `${name}=${photos[name].join()}`);
  const hash = named.length ? `#${named.join("&")}` : "";
  closeAll(() => {
    history.pushState({ dialogs: 0, step: steps() + 1 }, "", `${location.pathname}${location.search}${hash}`);
  });
}

/** How many steps of this page can be taken back. */
export function steps() {
  return history.state?.step ?? 0;
}

/** Call this when the person has moved through the history, or has changed the address. */
export function watch(react) {
  window.addEventListener("popstate", react);
}
