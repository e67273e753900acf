async (cosines) => {
  const { strength } = await import("/page/shared/words.js");
  return cosines.map(strength);
}
