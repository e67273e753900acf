// Lets one picture be decoded, and waits until the page has gone on with it.
async (number) => {
  await window.held[number]();
  // A task of its own: all that follows from the promise has been done by then.
  await new Promise((done) => setTimeout(done));
}
