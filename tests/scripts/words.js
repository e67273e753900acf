async (name, ...given) => {
  const words = await import("/page/shared/words.js");
  return words[name](...given);
}
