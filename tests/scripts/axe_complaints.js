// What axe, which has been loaded before, finds wrong with the page.
async () => {
  const { violations } = await window.axe.run();
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`),
  );
}
