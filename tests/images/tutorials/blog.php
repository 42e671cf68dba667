<?php
// A blog in one file: GET / lists what was written, POST / writes one. The database is made when it is not there.
mysqli_report(MYSQLI_REPORT_OFF);
$name = getenv('WORDPRESS_DB_NAME') ?: 'wordpress';
$db = @mysqli_connect(getenv('WORDPRESS_DB_HOST') ?: 'mysql', getenv('WORDPRESS_DB_USER') ?: 'root', getenv('WORDPRESS_DB_PASSWORD'));
if (!$db) {
    http_response_code(500);
    exit('Error establishing a database connection: ' . mysqli_connect_error() . "\n");
}
mysqli_query($db, "CREATE DATABASE IF NOT EXISTS `$name`");
mysqli_select_db($db, $name);
mysqli_query($db, 'CREATE TABLE IF NOT EXISTS posts (id INT AUTO_INCREMENT PRIMARY KEY, text TEXT)');
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    $insert = mysqli_prepare($db, 'INSERT INTO posts (text) VALUES (?)');
    mysqli_stmt_execute($insert, [file_get_contents('php://input')]);
}
echo "<title>WordPress</title>\n";
foreach (mysqli_query($db, 'SELECT text FROM posts ORDER BY id') as $post) {
    echo '<p>' . htmlspecialchars($post['text']) . "</p>\n";
}
