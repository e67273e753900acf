/** One part of the query, as a button that removes it. */

import { element } from "../shared/dom.js";

/**
 * An item of a list with the button.
 *
 * @param {object} part
 * @param {string} part.kind of it, the name of its class
 * @param {(Node | string)[]} part.shown what stands in it
 * @param {string} part.says the same in words, for those who do not see it
 * @param {() => void} part.remove
 */
export function chip({ kind, shown, says, remove }) {
  const button = element("button", { type: "button", className: `part ${kind}`, title: `Remove: ${says}` });
  button.ariaLabel = `Remove: ${says}`;
  button.append(...shown, element("i", { className: "cross" }));
  button.addEventListener("click", remove);
  return element("li", {}, button);
}
