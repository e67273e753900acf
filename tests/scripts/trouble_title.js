// The title that the page gives to this code of an error.
async (code) => {
  const { trouble } = await import("/page/shared/words.js");
  return trouble({ code, message: "Why." })[0];
}
