// The body of the last search that was recorded: its type, and its bytes as a data URL.
async () => {
  const reader = new FileReader();
  const read = new Promise((done) => reader.addEventListener("load", done));
  reader.readAsDataURL(window.searches.at(-1).body);
  await read;
  return reader.result;
}
