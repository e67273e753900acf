// A search that is refused with a time to wait, then answered: what was shown.
async () => {
  const { createLiveSearch } = await import("/page/server.js");
  const shown = [];
  const busy = Object.assign(new Error("busy"), { retryAfter: 0.01 });
  let number = 0;
  const ask = async () => {
    number += 1;
    if (number === 1) {
      throw busy;
    }
    return "found";
  };
  await new Promise((over) => {
    const search = createLiveSearch(ask, {
      busy: () => {},
      found: (answer) => over(shown.push(answer)),
      trouble: (error) => shown.push(error.message),
    });
    void search.now();
  });
  return shown;
}
