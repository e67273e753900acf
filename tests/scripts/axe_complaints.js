// What axe, which has been loaded before, finds wrong with the page.
async () => {
  // Nobody reads the rest, and to describe it takes as long as to find it.
  const { violations } = await window.axe.run({ resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`),
  );
}
