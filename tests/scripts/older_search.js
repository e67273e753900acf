// Three searches, the last of which is answered first: which were given up, and what was shown.
async () => {
  const { createLiveSearch } = await import("/page/server.js");
  const [asked, shown] = [[], []];
  const ask = (signal) => new Promise((answer, fail) => asked.push({ signal, answer, fail }));
  const search = createLiveSearch(ask, {
    busy: () => {},
    found: (answer) => shown.push(answer),
    trouble: (error) => shown.push(error.message),
  });
  const searches = [search.now(), search.now(), search.now()];
  asked[2].answer("third");
  asked[1].fail(new Error("second"));
  asked[0].answer("first");
  await Promise.all(searches);
  return [asked.map(({ signal }) => signal.aborted), shown];
}
