/** How things are said on the page. */

const METHODS = { rn: "relation network", ret: "[Ret]", fused: "relation network and [Ret]" };

/** A retrieval method's name for people; with ``diffused``, photos that look alike lend each other their scores. */
export function methodName(method, diffused = false) {
  const name = METHODS[method] ?? method;
  return diffused ? `${name}, diffused` : name;
}

/** 1234 photos, 1 photo. */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** A score to three places, with a real minus sign. */
export function score(value) {
  return value.toFixed(3).replace("-", "\u2212");
}

/** The last part of a path. */
export function fileName(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** A reason as a sentence of its own. */
export function sentence(reason) {
  return reason.charAt(0).toUpperCase() + reason.slice(1);
}

/** One line: where the time went, and what was looked at. */
export function timings(answer) {
  const { total, ...stages } = answer.timings_ms;
  const parts = Object.entries(stages).map(([name, ms]) => `${name} ${whole(ms)}`);
  return [
    `${whole(total)} ms: ${parts.join(", ")}`,
    `${count(answer.candidates, "photo")} of ${count(answer.clusters.length, "cluster")}`,
    `by ${methodName(answer.method, answer.diffused)}`,
  ];
}

/** What is searched, as short facts. */
export function facts({ model, index, version }) {
  if (!model || !index) {
    return [];
  }
  const standIn = index.embedder === "[Ret]";
  return [
    `${count(index.photos, "photo")} in ${count(index.clusters, "cluster")}`,
    `model ${model.name} on ${model.device}, ${model.dtype}`,
    `clusters by ${standIn ? "[Ret] stand-in, not CLIP" : index.embedder}`,
    `index generation ${index.generation}`,
    // A checkout that is not installed has no version.
    ...(/^\d/.test(version) ? [`sketch-search ${version}`] : []),
  ];
}

/** How far the building of the index is, or nothing. */
export function building(build) {
  if (!build || build.phase === "done" || build.phase === "stopped") {
    return "";
  }
  const of = build.total ? ` of ${build.total.toLocaleString("en")}` : "";
  return ` A build is under way: ${build.phase}, ${build.done.toLocaleString("en")}${of}.`;
}

/** Title and text for what went wrong. */
export function trouble(error) {
  const busy = `${error.message} It is tried again on its own.`;
  switch (error.code ?? error.constructor.name) {
    case "not_ready":
      return ["Not ready yet", error.message];
    case "queue_full":
      return ["Many are searching", busy];
    case "unauthorized":
      return ["This server asks for a key", "Enter its API key. It is kept for as long as this tab is open."];
    case "blank_sketch":
      return ["Nothing to see yet", error.message];
    case "Away":
      return ["The server is away", "It does not answer. As soon as it does, the search goes on."];
    case "internal_error":
      return ["Something went wrong", `${error.message} Request ${error.requestId}.`];
    default:
      return ["That did not work", error.message];
  }
}

function whole(milliseconds) {
  return milliseconds < 1 ? "<1" : Math.round(milliseconds).toString();
}
