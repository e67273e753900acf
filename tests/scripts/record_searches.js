// Runs before the page: `window.searches` gets the body of every search.
() => {
  window.searches = [];
  const original = window.fetch;
  window.fetch = (address, options) => {
    if (new URL(address).pathname === "/search") {
      window.searches.push(options.body);
    }
    return original(address, options);
  };
}
