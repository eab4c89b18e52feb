# Libraries from Maven Central, or from wherever the machine's Maven is set up to get them.

# maven_libraries FOLDER GROUP:ARTIFACT:VERSION…: their jars and those of all that they need at run time.
maven_libraries() {
    local folder=$1 pom
    shift
    command -v mvn >/dev/null || die "there is no mvn on PATH (Debian: maven)"
    mkdir -p "$folder"
    pom=$folder/pom.xml
    maven_pom "$@" >"$pom"
    retry 4 mvn --quiet --batch-mode -Dstyle.color=never --file "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$folder" >&2 ||
        return 1
    rm -f "$pom"
}

maven_pom() {
    local coordinates group artifact version
    cat <<'POM'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>weir</groupId>
  <artifactId>libraries-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
POM
    for coordinates in "$@"; do
        IFS=: read -r group artifact version <<<"$coordinates"
        printf '    <dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n' "$group" "$artifact" "$version"
    done
    cat <<'POM'
  </dependencies>
  <build>
    <plugins>
      <plugin><groupId>org.apache.maven.plugins</groupId><artifactId>maven-dependency-plugin</artifactId><version>3.8.1</version></plugin>
    </plugins>
  </build>
</project>
POM
}
