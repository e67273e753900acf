// The picture of the last search that was recorded: its type, and its bytes as a data URL.
async () => {
  const reader = new FileReader();
  const read = new Promise((done) => reader.addEventListener("load", done));
  const { body } = window.searches.at(-1);
  reader.readAsDataURL(body instanceof FormData ? body.get("file") : body);
  await read;
  return reader.result;
}
