/** An explanation in the words of the network: a row of a table for each photo, and what it was made with. */

import { element } from "../shared/dom.js";
import { fileName, methodName, score } from "../shared/words.js";

/** A photo's row: its name, relation score, distance of [Ret], and how many tokens were compared. */
export function row(photo, result) {
  const facts = [
    fileName(result.paths[0]),
    photo.relation_score === null ? "\u2013" : score(photo.relation_score),
    score(photo.ret_distance),
    `${photo.sketch_cells.length} \u00d7 ${photo.photo_cells.length}`,
  ];
  const cells = facts.map((textContent, i) => element(i ? "td" : "th", { textContent, ...(i ? {} : { scope: "row" }) }));
  return element("tr", {}, ...cells);
}

/** The network, method and index that it was made with, and how long it took. @param answer of POST /explain; a file says no times */
export function source({ model, method, generation, timings_ms }) {
  const stages = Object.entries(timings_ms).map(([stage, ms]) => `${stage} ${Math.round(ms)} ms`);
  return [`${model}, ${methodName(method)}, index generation ${generation}`, stages.join(", ")].filter(Boolean).join("; ");
}
