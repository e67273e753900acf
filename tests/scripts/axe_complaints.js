// What axe, which has been loaded before, finds wrong with the page, or with the uppermost dialog: what is behind a
// dialog cannot be used, and its colours would be taken for those on the dialog.
async () => {
  const shown = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document;
  // Nobody reads the rest, and to describe it takes as long as to find it.
  const { violations } = await window.axe.run(shown, { resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`),
  );
}
