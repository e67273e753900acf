// Runs before the page: `window.searches` gets the body and the answer of every search, but for those by the examples of
// the start page.
() => {
  window.searches = [];
  const original = window.fetch;
  window.fetch = async (address, options) => {
    const answer = await original(address, options);
    const { pathname, searchParams } = new URL(address);
    if (pathname === "/search" && searchParams.get("quality") !== "fast") {
      window.searches.push({ body: options.body, answer: await answer.clone().json() });
    }
    return answer;
  };
}
